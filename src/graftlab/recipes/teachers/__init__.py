"""Who rewrites styled text into plain inputs: rules, an HTTP endpoint, or a model of ours."""
