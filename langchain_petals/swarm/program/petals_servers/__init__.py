"""The program that runs the servers of a local swarm, in an environment of their own.

It needs petals with its companions, and psutil. It knows nothing of LangChain, of the rest of `langchain_petals` and
of the program that started it. It runs with petals 2.2.0.post1, with git main (2.3.0.dev2) and with forks of them.

    environment     checks what is installed, before anything else is imported
    check           imports all, without running a server
    supervisor      starts and ends the others; talks with the program that has the LocalSwarm
    foreground      runs one server for the command `langchain-petals server run`
    telling_server  petals' server, with events for it
    tasks           what a child process does: be a server, or the bootstrap peer
    delaying_proxy  makes a server answer late
    shims           what petals and hivemind need changed
    parent          ends processes whose parent has ended
    leavings        ends what a server would leave
"""
