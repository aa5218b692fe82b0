"""Parsers that are given what they were not made for."""
