"""The charts of the page: from records to Vega-Lite, by Altair."""
