"""A recorded run as one HTML page that needs no network; its charts want the extra `report`."""
