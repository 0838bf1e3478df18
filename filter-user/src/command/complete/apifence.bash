# Completions of apifence for bash: `apifence` itself names the words that fit.
_apifence() {
    local line=${COMP_LINE:0:COMP_POINT} words=() count=0 word i
    # bash splits words at `:` and `=`. Put them together again: an IPv6 address is one word.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        ((i == COMP_CWORD)) && word=$2
        if ((count > 0)) && [[ $line != [[:space:]]* ]]; then
            words[count - 1]+=$word
        else
            words[count++]=$word
        fi
        line=${line#*"$word"}
    done

    local found=() row
    while IFS= read -r row; do
        [[ -n $row ]] && found+=("$row")
    done < <(_CLAP_COMPLETE_INDEX=$((count - 1)) COMPLETE=bash apifence -- "${words[@]}" 2>/dev/null)

    # bash replaces only the part after the last of them.
    local whole=${words[count - 1]} tail value note longest=0
    tail=${whole##*["$COMP_WORDBREAKS"]}
    local before=${whole%"$tail"}
    COMPREPLY=()
    for row in "${found[@]}"; do
        value=${row%%$'\t'*}
        ((${#value} - ${#before} > longest)) && longest=$((${#value} - ${#before}))
    done
    for row in "${found[@]}"; do
        value=${row%%$'\t'*}
        value=${value#"$before"}
        note=
        [[ $row == *$'\t'* ]] && note=${row#*$'\t'}
        # Notes are for reading: not where bash inserts what it gets.
        if ((${#found[@]} > 1 && COMP_TYPE != 37 && COMP_TYPE != 42)) && [[ -n $note ]]; then
            printf -v value "%-${longest}s  (%s)" "$value" "$note"
            value=${value:0:$((${COLUMNS:-80} - 2))}
        else
            printf -v value %q "$value"
        fi
        COMPREPLY+=("$value")
    done
    if ((${#COMPREPLY[@]} == 1)) && [[ ${COMPREPLY[0]} == *[/=:] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
if ((BASH_VERSINFO[0] > 4 || BASH_VERSINFO[0] == 4 && BASH_VERSINFO[1] >= 4)); then
    complete -o nosort -F _apifence apifence
else
    complete -F _apifence apifence
fi
