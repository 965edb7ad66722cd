// Each partition: where it stands, whose it is, and why it is behind.
import { Table, CopyCurl, Empty, Shown, State } from '../widgets';
import { span, Time } from '../time';
import { History } from './history';
import type { Health } from './state';

const KINDS: { [verdict: string]: 'good' | 'wait' | 'bad' } = { ok: 'good', warn: 'wait' };

export function Partitions({ health }: { health: Health }) {
  const { lags, consumers } = health;
  const consumer = consumers.data?.views.find((one) => one.view === lags.data?.view);
  // What went wrong is said above.
  if (!lags.data && lags.error) return null;
  return (
    <Shown of={{ ...lags, error: undefined }} what="partitions">
      {({ partitions }) => partitions.length === 0 ? <Empty>No partition has been looked at yet.</Empty> : (
        <>
          <div class="tools"><CopyCurl path="/ops/lags" what="the lags" /></div>
          <Table label="Partitions">
            <thead><tr><th scope="col" class="num">Partition</th><th scope="col">Verdict</th><th scope="col" class="num">Next offset</th><th scope="col" class="num">High watermark</th><th scope="col" class="num">Lag</th><th scope="col" class="num">Oldest</th><th scope="col">Owner</th><th scope="col">Last commit here</th><th scope="col">Reason</th></tr></thead>
            <tbody>
              {partitions.map((one) => {
                const own = consumer?.partitions.find((partition) => partition.partition === one.partition);
                const owner = consumer?.progress?.find((progress) => progress.partition === one.partition)?.owner;
                return (
                  <tr key={one.partition}>
                    <td class="num">{one.partition}</td>
                    <td><State kind={KINDS[one.verdict] ?? 'bad'}>{one.verdict}</State></td>
                    <td class="num">{one.nextOffset}</td>
                    <td class="num">{one.highWatermark}</td>
                    <td class="num">{one.lag}</td>
                    <td class="num">{span(one.lagSeconds)}</td>
                    <td>{own ? 'this instance' : owner ? <span class="mono small">{owner}</span> : <span class="nothing">nobody</span>}</td>
                    <td>{own?.lastCommitAt ? <Time at={own.lastCommitAt} short /> : <span class="nothing">none</span>}</td>
                    <td class="wide">{own?.paused ?? one.reason ?? ''}</td>
                  </tr>
                );
              })}
            </tbody>
          </Table>
          <History />
        </>
      )}
    </Shown>
  );
}
