"""The `bedplate` command: a small front end of the Ansible collection bedplate.llm."""
