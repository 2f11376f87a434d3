"""What nvidia-smi prints, in the words of its versions and of its failures."""

from __future__ import annotations

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import gpu_smi
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_facts import (
    Clocks,
    Ecc,
    Fabric,
    Memory,
    PciLink,
    Power,
    Process,
    RowRemap,
    SourceError,
)

HEAD = '<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">\n'
GPU = """
<gpu id="00000000:1B:00.0">
 <product_name>NVIDIA H100 80GB HBM3</product_name>
 <product_architecture>Hopper</product_architecture>
 <persistence_mode>Enabled</persistence_mode>
 <mig_mode><current_mig>Disabled</current_mig><pending_mig>Disabled</pending_mig></mig_mode>
 <mig_devices>None</mig_devices>
 <uuid>GPU-0</uuid>
 <pci>
  <pci_device_id>233010DE</pci_device_id>
  <pci_gpu_link_info>
   <pcie_gen><max_link_gen>5</max_link_gen><current_link_gen>4</current_link_gen></pcie_gen>
   <link_widths><max_link_width>16x</max_link_width><current_link_width>8x</current_link_width></link_widths>
  </pci_gpu_link_info>
 </pci>
 <fb_memory_usage>
  <total>81559 MiB</total><reserved>551 MiB</reserved><used>1 MiB</used><free>81007 MiB</free>
 </fb_memory_usage>
 <utilization><gpu_util>7 %</gpu_util></utilization>
 <ecc_mode><current_ecc>Enabled</current_ecc><pending_ecc>Disabled</pending_ecc></ecc_mode>
 <ecc_errors>
  <volatile>
   <sram_correctable>1</sram_correctable><sram_uncorrectable_parity>2</sram_uncorrectable_parity>
   <sram_uncorrectable_secded>3</sram_uncorrectable_secded><dram_correctable>4</dram_correctable>
   <dram_uncorrectable>5</dram_uncorrectable>
  </volatile>
  <aggregate>
   <dram_uncorrectable>6</dram_uncorrectable><sram_threshold_exceeded>No</sram_threshold_exceeded>
  </aggregate>
 </ecc_errors>
 <remapped_rows>
  <remapped_row_corr>1</remapped_row_corr><remapped_row_unc>2</remapped_row_unc>
  <remapped_row_pending>Yes</remapped_row_pending><remapped_row_failure>No</remapped_row_failure>
 </remapped_rows>
 <gpu_power_readings>
  <current_power_limit>700.00 W</current_power_limit><min_power_limit>200.00 W</min_power_limit>
  <max_power_limit>N/A</max_power_limit>
 </gpu_power_readings>
 <clocks><sm_clock>345 MHz</sm_clock><mem_clock>2619 MHz</mem_clock></clocks>
 <max_clocks><sm_clock>1980 MHz</sm_clock><mem_clock>2619 MHz</mem_clock></max_clocks>
 <fabric>
  <state>Completed</state><status>Success</status><cliqueId>0</cliqueId>
  <clusterUuid>00000000-0000-0000-0000-000000000000</clusterUuid>
 </fabric>
 <processes>
  <process_info><pid>7</pid><type>C</type><used_memory>512 MiB</used_memory></process_info>
  <process_info><pid>8</pid><type>G</type><used_memory>4 MiB</used_memory></process_info>
  <process_info><pid>9</pid><type>M+C</type><used_memory>N/A</used_memory></process_info>
 </processes>
</gpu>"""
MIG = """
<mig_mode><current_mig>Enabled</current_mig><pending_mig>Enabled</pending_mig></mig_mode>
<mig_devices>
 <mig_device>
  <index>0</index><gpu_instance_id>1</gpu_instance_id>
  <device_attributes><shared><multiprocessor_count>60</multiprocessor_count></shared></device_attributes>
  <fb_memory_usage><total>40448 MiB</total><free>40000 MiB</free></fb_memory_usage>
 </mig_device>
</mig_devices>"""


def log(*gpus: str) -> str:
    versions = "<driver_version>580.95.05</driver_version><cuda_version>13.0</cuda_version>"
    return f"{HEAD}<nvidia_smi_log>{versions}{''.join(gpus)}</nvidia_smi_log>\n"


def test_everything_that_it_tells_is_read():
    reading = gpu_smi.parse(log(GPU))
    assert (reading.driver.version, reading.driver.cuda_version, reading.simulated) == ("580.95.05", "13.0", False)
    (gpu,) = reading.gpus
    assert (gpu.pci_address, gpu.pci_device_id, gpu.architecture) == ("0000:1b:00.0", "2330", "hopper")
    assert gpu.memory == Memory(81559 * 2**20, 551 * 2**20, 2**20, 81007 * 2**20)
    assert gpu.link == PciLink(4, 5, 8, 16)
    assert gpu.ecc == Ecc(True, False, 5, 10, 6)
    assert gpu.row_remap == RowRemap(1, 2, True, False)
    assert gpu.power == Power(700.0, 200.0, None)
    assert gpu.clocks == Clocks(345, 1980, 2619, 2619)
    assert gpu.fabric == Fabric("completed", "success", None, None, 0)
    assert gpu.processes == (Process(7, 512 * 2**20), Process(9, None))
    assert (gpu.persistence, gpu.utilization_percent) == (True, 7)
    assert (gpu.mig.enabled, gpu.mig.instances) == (False, ())
    assert gpu.unreadable == {}


def test_parts_of_a_split_gpu_are_read():
    begin, end = GPU.index("<mig_mode>"), GPU.index("<uuid>")
    (gpu,) = gpu_smi.parse(log(GPU[:begin] + MIG + GPU[end:])).gpus
    assert [(part.memory_total_bytes, part.multiprocessors) for part in gpu.mig.instances] == [(40448 * 2**20, 60)]


def test_older_words_are_understood():
    old = GPU.replace("gpu_power_readings", "power_readings").replace("current_power_limit", "power_limit")
    (gpu,) = gpu_smi.parse(log(old)).gpus
    assert gpu.power.limit_watts == 700.0


@pytest.mark.parametrize(("clique", "cluster"), [("CliqueId", "ClusterUUID"), ("clique_id", "cluster_uuid")])
def test_the_fabric_is_read_however_its_tags_are_spelt(clique, cluster):
    uuid = "01234567-89ab-cdef-0123-456789abcdef"
    text = GPU.replace("cliqueId", clique).replace("clusterUuid", cluster)
    text = text.replace("00000000-0000-0000-0000-000000000000", uuid).replace("Completed", "In Progress")
    (gpu,) = gpu_smi.parse(log(text)).gpus
    assert gpu.fabric == Fabric("in_progress", "success", None, uuid, 0)


@pytest.mark.parametrize(
    ("value", "reason"),
    [("[Unknown Error]", "Unknown Error"), ("[Insufficient Permissions]", "Insufficient Permissions"), ("ERR!", None)],
)
def test_a_refused_value_has_a_reason(value, reason):
    (gpu,) = gpu_smi.parse(log(GPU.replace("7 %", value))).gpus
    assert gpu.utilization_percent is None
    assert gpu.unreadable == {"utilization_percent": reason or "Unknown Error"}


@pytest.mark.parametrize("value", ["N/A", "[N/A]", "[Not Supported]", ""])
def test_a_value_that_is_not_there_is_no_finding(value):
    (gpu,) = gpu_smi.parse(log(GPU.replace("7 %", value))).gpus
    assert gpu.utilization_percent is None
    assert gpu.unreadable == {}


@pytest.mark.parametrize("value", ["[GPU is lost]", "[GPU requires reset]"])
def test_a_lost_gpu_does_not_hide_the_next_one(value):
    lost, other = gpu_smi.parse(log(GPU.replace("7 %", value), GPU)).gpus
    assert lost.error == value.strip("[]") + "."
    assert lost.pci_address == "0000:1b:00.0"
    assert other.error is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it prints nothing"),
        ("Failed to initialize NVML: Driver/library version mismatch\n", "of different versions"),
        (
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure …",
            "the kernel module is not loaded",
        ),
        ("Unable to determine the device handle for GPU0000:1B:00.0: GPU is lost.", "GPU is lost."),
        ("<nvidia_smi_log><gpu>", "no XML"),
        ("<other/>", "<other>"),
    ],
)
def test_what_it_says_instead_is_the_reason(text, words):
    with pytest.raises(SourceError) as caught:
        gpu_smi.parse(text)
    assert words in str(caught.value)


def test_a_document_that_defines_entities_is_refused():
    bomb = '<!DOCTYPE nvidia_smi_log [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
    with pytest.raises(SourceError, match="entities"):
        gpu_smi.parse(f"{bomb}<nvidia_smi_log><driver_version>&b;</driver_version></nvidia_smi_log>")
