"""Credentials of AWS, and the signature that they make."""
