// What is asked of the service by the dialogs of Operations.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './bundle.mjs';

const { keptFor } = await load('operations/model.ts');

test('an empty field is not nought hours: the build to go back to is kept as long as always', () => {
  assert.deepEqual(keptFor(''), {});
  assert.deepEqual(keptFor(' '), {});
  assert.deepEqual(keptFor('0'), { keepHours: 0 });
  assert.deepEqual(keptFor('48'), { keepHours: 48 });
});
