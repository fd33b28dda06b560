"""Whether a loader hands back the model that was saved: models of every kind are drawn, loaded, and compared."""
