"""`smfix fleet report`: merge the outputs of many hosts into one report."""
