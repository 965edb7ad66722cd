// The engines: whether they answer, and what they can.
import { useState } from 'preact/hooks';
import { useAsk } from '../api';
import type { Engine } from '../query/model';
import { NoManager } from '../query/none';
import { to } from '../router';
import { CopyCurl, count, Empty, Shown, State, Table, Value } from '../widgets';

export function Engines() {
  const [off, setOff] = useState(false);
  const list = useAsk<{ items: Engine[] }>('/api/engines', { every: off ? 0 : 5000 });
  if (!off && list.error?.code === 'manager_not_enabled') setOff(true);
  if (off) return <NoManager />;
  return (
    <>
      <div class="tools"><CopyCurl path="/api/engines" what="engines" /></div>
      <Shown of={list} what="engines">
        {({ items }) => items.length === 0 ? <Empty>No engine is configured.</Empty> : (
          <Table label="Engines">
            <thead><tr><th scope="col">Engine</th><th scope="col">State</th><th scope="col">Version</th><th scope="col" class="num">Free slots</th><th scope="col">Can pause</th><th scope="col">Keeps state over updates</th><th scope="col">Streams on it</th><th scope="col">Trouble</th></tr></thead>
            <tbody>
              {items.map((one) => (
                <tr key={one.engine}>
                  <td>{one.engine}{one.isDefault && <span class="muted small"> if none is named</span>}</td>
                  <td><State kind={one.isReachable ? 'good' : 'bad'}>{one.isReachable ? 'answers' : 'does not answer'}</State></td>
                  <td><Value of={one.capabilities?.version} /></td>
                  <td class="num">{count(one.capabilities?.freeSlots)}</td>
                  <td>{word(one.capabilities?.canPause)}</td><td>{word(one.capabilities?.canSavepoint)}</td>
                  <td><a href={to(['streams'], { engine: one.engine })}>see them</a></td>
                  <td class="wide">{one.trouble}</td>
                </tr>
              ))}
            </tbody>
          </Table>
        )}
      </Shown>
    </>
  );
}

function word(can: boolean | undefined): string {
  return can === undefined ? '–' : can ? 'yes' : 'no';
}
