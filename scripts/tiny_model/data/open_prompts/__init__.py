"""Prompts of any kind, which get an answer in words."""
