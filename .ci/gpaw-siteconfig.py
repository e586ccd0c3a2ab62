# How GPAW is built: serial, with Debian's libxc and openblas. Name this file in GPAW_CONFIG when pip builds it.
mpi = False
compiler = "g++"
libraries = ["xc", "openblas"]
