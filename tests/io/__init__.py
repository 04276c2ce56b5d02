"""Tests of pulmofuse.io."""  # noqa: A005 - the folder has the name of the package it tests
