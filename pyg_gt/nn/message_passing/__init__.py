"""Attention as PyG's messages: why they are sent, along which pairs; and edge sets."""
