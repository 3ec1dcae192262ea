"""The commands of covid-jax, a file each: what typer reads of its options, and what it does.

The flags of a config go through typer untouched, to covid_jax.flags.
"""

EXAMPLES = """\
  python -m covid_jax.main --config=configs/cmc.py
      trains and evaluates; here on made-up scans, in minutes
  python -m covid_jax.main --config=configs/cmc.py --config.data.source=manifest --config.data.root=scans.csv --workdir=runs/mine
      the same on your own scans
  covid-jax audit scans
      what is in a data set, what is there twice or not read, and what tells the label, before anyone trains
  covid-jax plan --config=configs/cmc.py:model4 --config.train.batch=8 --topology=v5e:2x4
      what a training step takes: memory, FLOPs, what moves between devices
  covid-jax table --config=configs/cmc.py --workdir=runs
      each number of the tables of a paper, beside that of the runs in a folder
  covid-jax compare runs/a runs/b
      how much two finished runs differ on the same exams: differences with intervals, and tests
  covid-jax predict scans/0003 scans/0004.nii.gz --run=runs/cmc --out=answers
      what finished runs answer about scans of which nobody knows the label
  covid-jax evaluate --run=runs/cmc --root=elsewhere.csv --prevalence=0.05 --out=elsewhere
      what a finished run reaches on another labelled set, beside its own test
  covid-jax info runs/cmc
      what a finished run is, what it learnt from and reached, and which commands take it; --json: for programs
  covid-jax prepare --config=configs/cmc.py --workdir=runs/cmc
      the scans of a config, prepared into its store: its training then starts at once
  covid-jax doctor --data=scans
      versions, devices, memory, readers: what works on this machine, and what to do about what does not
  covid-jax explain scans/0003 --run=runs/cmc --out=explained
      where a finished run looked: pictures, and a map that opens over the scan
  covid-jax report runs/cmc
      a finished run as one page, and how much of reporting guidelines it fills; a training leaves both itself
  covid-jax export runs/cmc --out=exported
      a finished run as StableHLO, which jax alone runs on any platform, with an example; --onnx for other programs
"""
