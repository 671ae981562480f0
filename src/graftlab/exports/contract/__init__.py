"""Whether a runtime asks the model as its rows train it: `graftlab inspect contract=`."""
