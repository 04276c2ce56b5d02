"""Pulmofuse: respiratory disease from chest CT, chest X-ray and cough. Research use only."""

__version__ = "0.3.0"
