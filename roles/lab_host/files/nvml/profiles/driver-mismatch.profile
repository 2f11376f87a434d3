# The library was updated and the old kernel module is still loaded: nothing starts until the module is replaced.
driver.version = 580.95.05
nvml.version = 13.580.95.05
cuda.version = 13000
init = !driver_mismatch
