// Streams, as the API has them.
export interface Stream {
  id: string;
  name: string;
  sqlScript: string;
  engine: string;
  jobId: string | null;
  streamName: string;
  outputTopic: string;
  isActive: boolean;
  createdAt: string;
  updatedAt: string;
  owner: string;
  version: number;
  revision: number;
  deployedRevision: number | null;
  failedRevision: number | null;
  wanted: 'draft' | 'running' | 'paused' | 'stopped' | 'deleted';
  state: 'absent' | 'unknown' | 'starting' | 'running' | 'degraded' | 'restarting' | 'paused' | 'stopping' | 'stopped' | 'failed';
  engineState: string | null;
  observedAt: string | null;
  isSettled: boolean;
  step: string | null;
  drift: string | null;
  lastError: string | null;
  retryAt: string | null;
  restorePoint: { path: string; savepoint: boolean } | null;
  allowed: string[];
  href: string;
}

export interface StreamEvent {
  id: number;
  at: string;
  what: string;
  actor: string | null;
  detail: string | null;
}

export interface Status {
  stream: Stream;
  engineTrouble: string | null;
  lag: number | null;
  recordsPerSecond: number | null;
  failure: string | null;
  latestCheckpoint: { path: string; savepoint: boolean } | null;
  events: StreamEvent[];
}

export interface Plan {
  engine: string;
  fromRevision: number | null;
  toRevision: number;
  effect: 'nothing' | 'starts' | 'keepsState' | 'restartsFromBeginning' | 'refused';
  reason: string;
  steps: string[];
  refused: { code: string; message: string; line: number | null; column: number | null }[];
  differences: string[];
}

export const WANTED = ['draft', 'running', 'paused', 'stopped'];
export const STATES = ['running', 'starting', 'degraded', 'restarting', 'paused', 'stopping', 'stopped', 'failed', 'absent', 'unknown'];

export function kindOf(state: Stream['state']): 'good' | 'on' | 'wait' | 'bad' | 'idle' {
  switch (state) {
    case 'running': return 'good';
    case 'starting': case 'stopping': case 'restarting': return 'wait';
    case 'degraded': case 'unknown': return 'wait';
    case 'failed': return 'bad';
    default: return 'idle';
  }
}

/** What the engine is seen to do, in words. */
export function word(stream: Stream): string {
  if (stream.state === 'absent') return stream.wanted === 'draft' ? 'Draft' : 'Not in the engine';
  if (stream.state === 'unknown') return 'Not seen';
  // An engine that cannot pause stops, and keeps the state: that is what was wanted.
  if (stream.state === 'stopped' && stream.wanted === 'paused' && stream.isSettled) return 'Paused';
  return stream.state.charAt(0).toUpperCase() + stream.state.slice(1);
}

/** How that differs from what is wanted; empty if it does not. */
export function difference(stream: Stream): string {
  if (stream.drift) return stream.drift;
  if (stream.isSettled) return '';
  const wanted = `wanted: ${stream.wanted}`;
  return stream.step ? `${wanted}; under way: ${stream.step}` : wanted;
}
