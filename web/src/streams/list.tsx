// Every stream: what its engine is seen to do first, then what is wanted where that is something else.
import { useEffect, useState } from 'preact/hooks';
import { ask, useAsk } from '../api';
import type { Engine } from '../query/model';
import { NoManager } from '../query/none';
import { change, narrow, place, to } from '../router';
import { Time } from '../time';
import { CopyCurl, count, Empty, Pager, Shown, State, Table, Typed } from '../widgets';
import { difference, kindOf, STATES, WANTED, word, type Status, type Stream } from './model';

export function StreamList() {
  const { query, hash } = place.value;
  const [engine, wanted, state, name] = [query.get('engine'), query.get('wanted'), query.get('state'), hash.get('name')];
  const asked = new URLSearchParams();
  for (const [key, value] of [['engine', engine], ['wanted', wanted], ['state', state], ['name', name], ['cursor', query.get('cursor')]] as const) if (value) asked.set(key, value);
  const path = `/api/streams${asked.size > 0 ? `?${asked}` : ''}`;
  const engines = useAsk<{ items: Engine[] }>('/api/engines', { every: 30_000 });
  const list = useAsk<{ items: Stream[] }>(path, { every: 2000 });
  const statuses = useStatuses(list.data?.items);
  if (list.error?.code === 'manager_not_enabled') {
    return <section><h1>Streams</h1><NoManager /></section>;
  }
  const silent = engines.data?.items.filter(({ isReachable }) => !isReachable) ?? [];
  const isFiltered = Boolean(engine ?? wanted ?? state ?? name);
  return (
    <section>
      <div class="head">
        <h1>Streams</h1>
        <div class="tools"><CopyCurl path={path} what="the list" /><a class="button primary" href={to(['streams', 'new'])}>New stream</a></div>
      </div>
      {silent.map((one) => (
        <div class="note" key={one.engine} role="status"><p>{one.engine} does not answer: {one.trouble ?? 'no reason is known'}. What is shown of its streams is what was seen last.</p></div>
      ))}
      <div class="filters">
        <Typed label="Name" data-filter value={name ?? ''} placeholder="HighValueOrders" set={(name) => narrow({}, { name })} />
        <Choice label="Engine" value={engine} of={engines.data?.items.map((one) => one.engine) ?? []} set={(engine) => narrow({ engine })} />
        <Choice label="In the engine" value={state} of={STATES} set={(state) => narrow({ state })} />
        <Choice label="Wanted" value={wanted} of={WANTED} set={(wanted) => narrow({ wanted })} />
      </div>
      <Shown of={list} what="streams">
        {({ items }) => items.length === 0 ? (
          isFiltered ? <Empty>No stream matches. <a href={to(['streams'])}>Show all</a></Empty>
            : <Empty>No stream is written down. <a href={to(['streams', 'new'])}>Write one</a>, or try its text as a <a href={to(['query'])}>query</a> first.</Empty>
        ) : (
          <Table label="Streams">
            <thead><tr><th scope="col">Name</th><th scope="col">In the engine</th><th scope="col">Engine</th><th scope="col">Topic</th><th scope="col" class="num">Rows/s</th><th scope="col" class="num">Not read yet</th><th scope="col">Owner</th><th scope="col" class="num">Revision</th><th scope="col">Changed</th></tr></thead>
            <tbody>
              {items.map((stream) => (
                <tr key={stream.id}>
                  <td><a href={to(['streams', stream.id])}>{stream.name}</a></td>
                  <td class="wide said"><State kind={kindOf(stream.state)}>{word(stream)}</State><Apart stream={stream} /></td>
                  <td>{stream.engine}</td>
                  <td class="mono">{stream.deployedRevision === null ? <span class="muted">{stream.outputTopic}</span> : <a href={to(['streams', stream.id, 'live'])}>{stream.outputTopic}</a>}</td>
                  <td class="num">{count(statuses.get(stream.id)?.recordsPerSecond)}</td><td class="num">{count(statuses.get(stream.id)?.lag)}</td>
                  <td>{stream.owner}</td><td class="num">{stream.revision}</td><td><Time at={stream.updatedAt} /></td>
                </tr>
              ))}
            </tbody>
          </Table>
        )}
      </Shown>
      <Pager asked={list} go={(cursor) => change({ cursor }, { replace: false })} />
    </section>
  );
}

/** Rate and lag of those that run: their engines are asked one by one, so it takes its time and is no part of the list. */
function useStatuses(items: Stream[] | undefined): ReadonlyMap<string, Status> {
  const [known, setKnown] = useState<ReadonlyMap<string, Status>>(new Map());
  const running = (items ?? []).filter(({ state }) => state === 'running' || state === 'degraded').map(({ id }) => id).join();
  useEffect(() => {
    const abort = new AbortController();
    let timer = 0;
    const look = async () => {
      const found = new Map<string, Status>();
      for (const id of document.hidden || running === '' ? [] : running.split(',')) {
        const status = await ask<Status>(`/api/streams/${id}/status`, {}, abort.signal).catch(() => null);
        if (abort.signal.aborted) return;
        // What the engine does not tell is no number.
        if (status && !status.data.engineTrouble) found.set(id, status.data);
      }
      setKnown(found);
      timer = window.setTimeout(look, 5000);
    };
    void look();
    return () => {
      abort.abort();
      window.clearTimeout(timer);
    };
  }, [running]);
  return known;
}

export function Apart({ stream }: { stream: Stream }) {
  const words = difference(stream);
  const error = stream.state === 'failed' || stream.failedRevision !== null || !stream.isSettled ? stream.lastError : null;
  return (
    <>
      {words && <div class="small apart">{words}</div>}
      {error && <div class="error">{error}</div>}
    </>
  );
}

function Choice({ label, value, of, set }: { label: string; value: string | null; of: string[]; set: (value: string | null) => void }) {
  return (
    <label><span>{label}</span>
      <select value={value ?? ''} onChange={(event) => set(event.currentTarget.value || null)}>
        <option value="">any</option>
        {of.map((one) => <option key={one} value={one}>{one}</option>)}
      </select>
    </label>
  );
}
