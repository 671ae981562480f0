"""Who makes neutral inputs: an endpoint over HTTP, a model on this machine, or nobody."""
