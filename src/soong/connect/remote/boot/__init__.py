"""From a machine that computes to an engine that answers: cuda, environment, weights, engine, ready.

Each step can be repeated: what is there is found again and not made again. So after a reboot, a kill or a broken
download the same command goes on where it was. What happens is told line by line in `progress.jsonl` beside this
program; afterwards it stays, as the parent of the engine and the gate, and tells when the engine ends.

    python3 boot.py [run]     do it, and stay
    python3 boot.py start     the same, in the background; does nothing when it runs already
    python3 boot.py stop      end engine, gate and boot.py, and do not start them again

Orders are read from `serve.json`, the endpoint's key from `api_key`, the Hub's token, if there is one, from
`hf_token`, which is deleted when the weights are here. All of it lies in one folder, `$HOME/.soong`.

On the machine these modules are one file, `boot.py`, an archive that any Python runs as it is: so it is there whole
or not at all; `soong.connect.programs` packs it. They import one another relatively, nothing but the standard library
besides, and all at the start, since a newer archive may take the place of the one that runs.
"""
