/** Holdfast in the bench: a farm of three servers, each client on one of them (on_addr). */
import { bucketCount } from '../../src/core/farm-types.ts';
import { type ClusterTiming, LabCluster } from '../../src/lab/cluster.ts';
import type { Host } from '../../src/lab/host.ts';
import { Lab } from '../../src/lab/lab.ts';
import { toolPath } from '../../src/lab/tool.ts';
import { port, type Rig } from './rig.ts';

const module = 'probe';

export class HoldfastRig implements Rig {
  readonly lab: Lab;
  readonly vip: string;
  readonly cluster: LabCluster;

  private constructor(lab: Lab, cluster: LabCluster) {
    this.lab = lab;
    this.vip = lab.vip();
    this.cluster = cluster;
  }

  static async up(timing: ClusterTiming): Promise<HoldfastRig> {
    const lab = await Lab.up({ hosts: 3, clientAddresses: 100 });
    try {
      const cluster = await LabCluster.start(lab, timing);
      const rig = new HoldfastRig(lab, cluster);
      // The scripts of the lab's test application, under a configuration with a single group.
      await cluster.install(module, 'test/fixtures/modules/lab_farm', () => configOf(rig.vip));
      await cluster.startModule(module);
      await rig.#settled();
      return rig;
    } catch (error) {
      await lab.down();
      throw error;
    }
  }

  /** Each in turn; the first one leads whenever it is there, so every third pull takes the leader. */
  victim(pull: number): Host {
    const { hosts } = this.cluster;
    const host = hosts[pull % hosts.length];
    if (host === undefined) throw new Error('the lab has no servers');
    return host;
  }

  /** The agent starts the module by itself (boot="auto"), as after a power cut. */
  async restore(host: Host): Promise<void> {
    await host.boot();
    await this.cluster.startAgent(host);
    await this.#settled();
  }

  /**
   * Resolves when each server has its full share and keeps nothing for old connections: a server
   * that joins gets its buckets step by step, and no step may fall into the time that is measured.
   */
  #settled(): Promise<void> {
    const { hosts } = this.cluster;
    return this.cluster.until('each server to have its share', (statuses) => {
      const farms = statuses.flatMap(({ modules }) => modules.map(({ farm }) => farm));
      return (
        farms.length === hosts.length &&
        new Set(farms.map((farm) => farm?.viewEpoch)).size === 1 &&
        farms.every((farm) => {
          const group = farm?.groups[0];
          return group?.holding === 0 && group.buckets >= Math.floor(bucketCount / hosts.length);
        })
      );
    });
  }
}

function configOf(vip: string): string {
  return `<safe>
  <service mode="farm" boot="auto" maxloop="3" loop_interval="24h">
    <farm>
      <ready kind="tcp" addr="127.0.0.1" port="${port}" interval="100ms" timeout="2s" failures="3"
             action="restart"/>
    </farm>
    <vip>
      <interface_list>
        <interface>
          <virtual_interface type="vmac_invisible">
            <virtual_addr addr="${vip}" where="alias"/>
          </virtual_interface>
        </interface>
      </interface_list>
      <loadbalancing_list>
        <group name="probe">
          <rule port="${port}" proto="udp" filter="on_addr"/>
        </group>
      </loadbalancing_list>
    </vip>
    <user nicestoptimeout="20s" forcestoptimeout="5s">
      <var name="TOOL" value="${toolPath()}"/>
      <var name="TCP" value="${port}"/>
      <var name="UDP" value="${port}"/>
    </user>
  </service>
</safe>
`;
}
