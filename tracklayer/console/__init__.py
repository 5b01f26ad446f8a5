"""What a run's process prints: taken where it passes, made into lines, and handed on."""
