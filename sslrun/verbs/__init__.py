"""The verbs beside running an experiment: one file each, imported when called."""

USAGE = {
    "resume": "sslrun resume RUN [epochs=N | steps=N] [max_time=T] [save_every=S]   goes on with a run, or further",
    "methods": "sslrun methods [NAME]   the grid of methods, or one of them with its keys, defaults and paper",
    "embed": "sslrun embed RUN [out=FILE.npz|FILE.parquet] [data=NAME] [data.KEY=VALUE ...]   features of every sample",
    "predict": "sslrun predict RUN [out=FILE] [data=NAME] [data.KEY=VALUE ...]   labels, clusters or completed samples",
    "export": "sslrun export RUN [out=DIR] [format=safetensors|onnx]   the encoder for use elsewhere",
    "report": "sslrun report [DIR ...] [--out DIR] [--rows KEY] [--columns KEY] [--where KEY=VALUE] [--metric NAME] "
    "[--baseline KEY=VALUE|untrained|raw|supervised]   compares runs: a page, Markdown, CSV and figures",
    "check": "sslrun check [method=NAME ...]   is a method's loss the paper's, and does it teach the network anything?",
    "board": "sslrun board [DIR] [port=N]   TensorBoard on this machine only",
}
