"""Everything that runs on one laptop: never imported by what is deployed."""
