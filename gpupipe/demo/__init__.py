"""``python -m gpupipe.demo [DIR]``: makes a handful of varied clips and runs ``gpupipe clips`` on them."""
