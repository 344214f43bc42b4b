"""Replaying searches on tables of configurations that were really trained."""
