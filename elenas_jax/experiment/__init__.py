"""Putting it together: from a config to a run folder.

Import from the modules; this package imports none of them, so that `run_dir` alone stays light for
whatever reads run folders.

  session     `run(config, path)`: a whole search, started or gone on with, shown and stoppable
  config      which keys there are: `default_config`, `check_config`
  rules       what a key may be, and what is said when it is something else
  build       from names to objects
  loop        ask, evaluate, tell; what is written when
  archive     every candidate in SQLite; `export_rows`, `best_block`, `write_export`
  checkpoint  the state of a strategy, on disk and back to the bit
  run_dir     the files of a run
  plan        what is said at the start
  progress    what is seen meanwhile
"""
