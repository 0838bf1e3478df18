# Completions of apifence for fish: `apifence` itself names the words that fit.
complete --keep-order --exclusive --command apifence --arguments "(COMPLETE=fish apifence -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token) 2>/dev/null)"
