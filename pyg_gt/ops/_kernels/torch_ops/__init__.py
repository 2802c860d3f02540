"""Attention composed of torch operations."""
