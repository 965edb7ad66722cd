// A stream: what its engine is seen to do, what is wanted, and what may be asked of it.
import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { ask, Problem, root, useAsk, type Asked } from '../api';
import { Record } from '../record';
import { change, place, to } from '../router';
import { Sql } from '../sql';
import { Time } from '../time';
import { Act, Copy, CopyCurl, count, Empty, Failure, Shown, State, Table, Toolbar, Value } from '../widgets';
import { Consumers } from './consumers';
import { Delete } from './delete';
import { Edit } from './edit';
import { difference, kindOf, word, type Status, type Stream, type StreamEvent } from './model';
import { Revisions } from './revisions';

const TABS: [string, string][] = [['', 'Text'], ['revisions', 'Revisions'], ['events', 'Events'], ['consumers', 'Consumers'], ['program', 'Use it from a program'], ['json', 'As JSON']];

export function Detail({ id }: { id: string }) {
  const [asks, setAsks] = useState(true);
  const stream = useAsk<Stream>(asks ? `/api/streams/${encodeURIComponent(id)}` : null, { every: 1500 });
  const status = useAsk<Status>(asks && stream.data ? `/api/streams/${encodeURIComponent(id)}/status` : null, { every: 4000 });
  return (
    <section>
      <p class="small"><a href={to(['streams'])}>All streams</a></p>
      <Shown of={stream} what="the stream">{(data) => <One stream={data} etag={stream.answer?.headers.get('etag') ?? null} asked={stream} status={status} ask={setAsks} />}</Shown>
    </section>
  );
}

function One({ stream, etag, asked, status, ask }: { stream: Stream; etag: string | null; asked: Asked<Stream>; status: Asked<Status>; ask: (on: boolean) => void }) {
  const [deletes, setDeletes] = useState(false);
  const [edits, setEdits] = useState(false);
  const tab = place.value.query.get('show') ?? '';
  const again = () => {
    asked.again();
    status.again();
  };
  const apart = difference(stream);
  return (
    <>
      <div class="head">
        <h1>{stream.name}</h1>
        <State kind={kindOf(stream.state)}>{word(stream)}</State>
        {apart && <span class="small apart">{apart}</span>}
        <div class="tools"><CopyCurl path={stream.href} what="the stream" /></div>
      </div>
      {(stream.lastError || status.data?.failure) && stream.state !== 'running' && (
        <div class="failure"><p><strong>{stream.lastError ?? status.data?.failure}</strong></p>
          {stream.retryAt && <p class="small">It is tried again <Time at={stream.retryAt} short />.</p>}
          {stream.failedRevision !== null && <p class="small">Revision {stream.failedRevision} could not be brought to run, and is not tried again until somebody deploys it.</p>}
        </div>
      )}
      {status.data?.engineTrouble && <div class="note"><p>{stream.engine} cannot be asked just now: {status.data.engineTrouble}. What is shown was seen <Time at={stream.observedAt} />.</p></div>}
      <Buttons stream={stream} again={again} remove={() => setDeletes(true)} edit={() => {
        change({ show: null, diff: null });
        setEdits(true);
      }} />
      <dl class="facts">
        <Fact name="Engine">{stream.engine}{stream.engineState && <span class="muted small"> says {stream.engineState}</span>}</Fact>
        <Fact name="Seen"><Time at={stream.observedAt} short /></Fact>
        <Fact name="Wanted">{stream.wanted}</Fact>
        <Fact name="Not read yet">{status.data ? count(status.data.lag) : '–'}</Fact>
        <Fact name="Rows a second">{status.data ? count(status.data.recordsPerSecond) : '–'}</Fact>
        <Fact name="Topic"><a class="mono" href={to(['topics', stream.outputTopic, 'live'])}>{stream.outputTopic}</a></Fact>
        <Fact name="Job"><span class="mono"><Value of={stream.jobId} /></span></Fact>
        <Fact name="Revision">{stream.deployedRevision === null ? `${stream.revision}, not deployed yet` : stream.deployedRevision === stream.revision ? `${stream.revision}, deployed` : `${stream.revision}; deployed is ${stream.deployedRevision}`}</Fact>
        <Fact name="Owner">{stream.owner}</Fact>
        <Fact name="Made"><Time at={stream.createdAt} /></Fact>
        {stream.restorePoint && <Fact name="State kept at"><span class="mono small">{stream.restorePoint.path}</span></Fact>}
      </dl>
      <nav class="tabs" aria-label="Parts of the stream">
        {TABS.map(([name, title]) => <a key={name} href={to(['streams', stream.id], { show: name })} aria-current={name === tab ? 'page' : undefined} onClick={(event) => {
          event.preventDefault();
          change({ show: name, diff: null });
        }}>{title}</a>)}
        <a href={to(['streams', stream.id, 'live'])}>Live rows</a>
      </nav>
      {/* Who looks at another part meanwhile finds it as it was left. */}
      {edits && (
        <div hidden={tab !== ''}>
          <Edit stream={stream} etag={etag} close={() => setEdits(false)} done={() => {
            setEdits(false);
            again();
          }} />
        </div>
      )}
      {tab === '' && !edits && (
        <>
          <Sql text={stream.sqlScript} set={() => undefined} frozen label="Text of the stream" />
          <p class="tools">
            <a class="button quiet" href={to(['query'], { engine: stream.engine }, { sql: stream.sqlScript })}>Try it as a query</a>
            <Copy text={stream.sqlScript} label="Copy text" />
          </p>
        </>
      )}
      {tab === 'revisions' && <Revisions stream={stream} />}
      {tab === 'events' && <Events id={stream.id} />}
      {tab === 'consumers' && <Consumers id={stream.id} />}
      {tab === 'program' && <Program stream={stream} />}
      {tab === 'json' && <Record text={asked.answer?.text ?? ''} label="The stream" />}
      {deletes && <Delete stream={stream} ask={ask} close={() => setDeletes(false)} />}
    </>
  );
}

function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  return <div><dt>{name}</dt><dd>{children}</dd></div>;
}

const VERBS: [string, string, string][] = [['deploy', 'Deploy', 'Deploying …'], ['pause', 'Pause', 'Pausing …'], ['resume', 'Resume', 'Resuming …'], ['stop', 'Stop', 'Stopping …']];
/** What the API takes again without an effect is no button. */
function isIdle(stream: Stream, verb: string): boolean {
  switch (verb) {
    case 'deploy': return stream.wanted === 'running' && stream.isSettled && stream.failedRevision === null && stream.deployedRevision === stream.revision;
    case 'pause': return stream.wanted === 'paused';
    case 'resume': return stream.wanted !== 'paused' && stream.state !== 'paused';
    default: return stream.wanted === 'stopped';
  }
}

const PAST: { [verb: string]: string } = { deploy: 'It is wanted to run already.', pause: 'Only what runs can be paused.', resume: 'Only what is paused can be resumed.', stop: 'It does not run.' };

/** What may be asked of it: what may not is there too, and says why. */
function Buttons({ stream, again, edit, remove }: { stream: Stream; again: () => void; edit: () => void; remove: () => void }) {
  const [busy, setBusy] = useState('');
  const [problem, setProblem] = useState<Problem | null>(null);
  const [loses, setLoses] = useState(false);
  const run = async (verb: string, body: object = {}) => {
    if (busy) return;
    setBusy(verb);
    setProblem(null);
    try {
      await ask(`${stream.href}/${verb}`, { method: 'POST', body });
    } catch (error) {
      if (error instanceof Problem && error.code === 'would_lose_state') setLoses(true);
      setProblem(error as Problem);
    } finally {
      setBusy('');
      again();
    }
  };
  return (
    <>
      <Toolbar label="The stream" main>
        {VERBS.map(([verb, title, meanwhile]) => (
          <Act key={verb} right="runStreams" apart class={verb === (stream.wanted === 'paused' ? 'resume' : 'deploy') && stream.wanted !== 'running' ? 'primary' : ''} onClick={() => void run(verb)}
            why={busy ? 'Something is asked of it just now.' : stream.allowed.includes(verb) && !isIdle(stream, verb) ? '' : PAST[verb]!}>
            {busy === verb ? meanwhile : title}
          </Act>
        ))}
        <Act right="define" apart onClick={edit} why={stream.allowed.includes('update') ? '' : 'It cannot be changed as it is.'}>Edit …</Act>
        <Act right="runStreams" class="danger" apart onClick={remove} why={stream.allowed.includes('delete') ? '' : 'It cannot be deleted as it is.'}>Delete …</Act>
        {!stream.isSettled && <span class="unseen" role="status">{stream.step ? `Under way: ${stream.step}` : 'Under way …'}</span>}
      </Toolbar>
      {problem && (
        <Failure problem={problem}>
          {loses && <p><button type="button" class="danger" onClick={() => {
            setLoses(false);
            void run('deploy', { acceptStateLoss: true });
          }}>Deploy it and lose that state</button></p>}
        </Failure>
      )}
    </>
  );
}

function Events({ id }: { id: string }) {
  const cursor = place.value.query.get('cursor');
  const path = `/api/streams/${id}/events?pageSize=50${cursor ? `&cursor=${cursor}` : ''}`;
  const list = useAsk<{ items: StreamEvent[] }>(path, { every: cursor ? 0 : 3000 });
  return (
    <>
      <div class="tools"><CopyCurl path={path} what="events" /></div>
      <Shown of={list} what="events">
        {({ items }) => items.length === 0 ? <Empty>Nothing has happened to it yet.</Empty> : (
          <Table label="Events of the stream">
            <thead><tr><th scope="col">When</th><th scope="col">What</th><th scope="col">Who</th><th scope="col">More</th></tr></thead>
            <tbody>{items.map((event) => <tr key={event.id}><td><Time at={event.at} /></td><td>{event.what.replaceAll('_', ' ')}</td><td>{event.actor ?? <span class="nothing">the manager</span>}</td><td class="wide">{event.detail}</td></tr>)}</tbody>
          </Table>
        )}
      </Shown>
    </>
  );
}

function Program({ stream }: { stream: Stream }) {
  const hub = new URL('hub/stream', root).href;
  const programs: [string, string][] = [
    ['A browser or Node (npm install @microsoft/signalr)', `import { HubConnectionBuilder } from '@microsoft/signalr';
const connection = new HubConnectionBuilder().withUrl('${hub}').withAutomaticReconnect().build();
await connection.start();
connection.stream('ViewStream', '${stream.id}').subscribe({ next: (line) => console.log(line), complete() {}, error: console.error });`],
    ['.NET (Microsoft.AspNetCore.SignalR.Client)', `var connection = new HubConnectionBuilder().WithUrl("${hub}").WithAutomaticReconnect().Build();
await connection.StartAsync();
await foreach (var line in connection.StreamAsync<string>("ViewStream", "${stream.id}")) Console.WriteLine(line);`],
    ['Python (pip install signalrcore)', `from signalrcore.hub_connection_builder import HubConnectionBuilder
hub = HubConnectionBuilder().with_url("${hub.replace(/^http/, 'ws')}").with_automatic_reconnect({"type": "raw"}).build()
hub.on("ReceiveMessage", print)
hub.on_open(lambda: hub.send("JoinStreamGroup", ["${stream.outputTopic}"]))
hub.start()`],
    ['A shell', `curl --no-buffer '${new URL(`api/topics/${stream.outputTopic}/rows?from=latest`, root).href}'`],
  ];
  return (
    <>
      {programs.map(([title, text]) => (
        <div key={title}>
          <div class="head section"><h2>{title}</h2><div class="tools"><Copy text={text} what={title} /></div></div>
          <pre tabIndex={0} aria-label={title}>{text}</pre>
        </div>
      ))}
    </>
  );
}
