"""Adapters to other libraries, each loaded when its library asks for it."""
