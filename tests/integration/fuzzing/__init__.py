"""Dialogues drawn at random, played to real servers straight and through the proxy."""
