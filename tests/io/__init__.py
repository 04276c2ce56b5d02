"""Tests of pulmofuse.io."""
