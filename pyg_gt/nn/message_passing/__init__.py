"""Attention as PyG's messages: when they are sent, along which pairs, and edge sets they take."""
