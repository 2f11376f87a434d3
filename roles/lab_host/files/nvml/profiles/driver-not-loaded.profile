# The library is installed and the kernel module is not loaded.
driver.version = 580.95.05
nvml.version = 13.580.95.05
cuda.version = 13000
init = !driver_not_loaded
