"""Workers: processes that claim trials from the store and train them; bare, or as actors on a Ray cluster.

The package has two names: `workers` in a checkout, `autopeft._workers` in the wheel. It is the only place that imports
ray.

    supervisor   claims, keeps leases alive, asks the pruner, writes results; no torch
    engine       the supervisor's child: backbone and data resident, trains what it is told to; no database
    messages     what the two say to each other over a pipe
    process      the child as the supervisor sees it: started, watched, ended
    pool         a Ray cluster's workers: named actors, each of which is a supervisor
"""
