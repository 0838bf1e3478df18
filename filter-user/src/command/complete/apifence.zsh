#compdef apifence
# Completions of apifence for zsh: `apifence` itself names the words that fit.
_apifence() {
    local -a found folders others
    local row
    found=("${(@f)$(_CLAP_COMPLETE_INDEX=$((CURRENT - 1)) COMPLETE=zsh \
        apifence -- "${(@)words[1,CURRENT]}" 2>/dev/null)}")
    for row in $found; do
        if [[ ${row%%:*} == */ ]]; then
            folders+=("${row%%/(:*|)}")
        else
            others+=("$row")
        fi
    done
    (( $#folders )) && _describe -V 'folders' folders -S / -q
    (( $#others )) && _describe -V 'values' others
}
if [[ ${funcstack[1]} == _apifence ]]; then
    _apifence "$@"
else
    compdef _apifence apifence
fi
