"""Conversations with tools and JSON objects."""
