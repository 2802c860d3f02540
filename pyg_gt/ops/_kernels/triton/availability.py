"""Whether Triton is there, and whether it interprets."""
from .full.problem import interprets as interprets
from .full.problem import is_installed as is_installed
