"""Measuring the machine on which a run is made: see `tracklayer.system.sampling`."""
