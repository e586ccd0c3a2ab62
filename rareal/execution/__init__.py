"""Where the work is done: executors in the form of `concurrent.futures`, one module per kind.

A task is a function that pickles, with arguments that pickle; it runs in this process (`serial`), in a process of its
own on this machine (`processes`), or wherever Parsl has workers (`parsl`). What tasks leave behind are files of the run
folder, so that a loop that was killed goes on with them. An executor of your own is a module with a pydantic class
`Config` and ``build(config)``, which returns any `concurrent.futures.Executor`; its attribute ``workers`` says how many
tasks it runs at the same time.
"""
