"""Policy: bundles of Rego, their checks and tests, the engines that evaluate them, and the closing of what they say."""
