from .problem import MAX_CHANNELS, TYPES
