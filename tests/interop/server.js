// An OPC UA server whose stack we did not write (node-opcua), for tests of edge/sources/opcua.
//
//   node server.js '{"port": 4840, "pki": "/tmp/…", "swap": false, "noise": 0, "security": ["none", "secure"]}'
//
// It prints {"ready": true, …}, then answers each JSON line on stdin with one JSON line on stdout: first an event it
// was asked for, then exactly what it produced. Times are 100 ns ticks since 1601, as text.
"use strict";
const path = require("path");
const modules = process.env.NODE_OPCUA_MODULES || path.join(__dirname, "node_modules");
const opcua = require(path.join(modules, "node-opcua"));
const { DataType, DataValue, Variant, VariantArrayType, StatusCodes, coerceInt64, coerceUInt64 } = opcua;

const options = JSON.parse(process.argv[2]);
const URI = "urn:fieldlab:interop";
const EPOCH = 116444736000000000n;
const MILLION = 1000000n;
const produced = [];
const variables = {};
const sizes = {};
const asked = { writes: [], calls: [] };
let server, namespace, folder, lastTick = 0n;

// One tick (100 ns) later than the last reading at least: each has a time of its own.
function now() {
  const tick = BigInt(Date.now()) * 10000n + EPOCH;
  lastTick = tick > lastTick ? tick : lastTick + 1n;
  return lastTick;
}

function bignum(type, value) {
  const wide = { Int64: coerceInt64, UInt64: coerceUInt64 }[type];
  if (!wide) return value;
  const one = (v) => {
    const bits = BigInt.asUintN(64, BigInt(v));
    return [Number(bits >> 32n), Number(bits & 0xffffffffn)];
  };
  return Array.isArray(value) ? value.map(one) : one(value);
}

function special(value) {
  const words = { NaN: NaN, Infinity: Infinity, "-Infinity": -Infinity };
  return typeof value === "string" && value in words ? words[value] : value;
}

function toVariant({ type, value, dimensions }) {
  if (type === "ExtensionObject") return new Variant({ dataType: DataType.ExtensionObject, value: new opcua.Range(value || { low: 0, high: 1 }) });
  const array = Array.isArray(value);
  const made = {
    ByteString: (v) => Buffer.from(v),
    DateTime: (v) => new Date(v),
    LocalizedText: (v) => opcua.coerceLocalizedText(v),
    QualifiedName: (v) => opcua.coerceQualifiedName(v),
    NodeId: (v) => opcua.coerceNodeId(v),
    ExpandedNodeId: (v) => opcua.coerceExpandedNodeId(v),
    StatusCode: (v) => StatusCodes[v],
    Variant: (v) => toVariant(v),
    DataValue: (v) => new DataValue({ value: toVariant(v), statusCode: StatusCodes[v.status || "Good"] }),
  }[type];
  if (made) return new Variant({ dataType: DataType[type], arrayType: array ? VariantArrayType.Array : VariantArrayType.Scalar, value: array ? value.map(made) : made(value) });
  const typed = { Double: Float64Array, Float: Float32Array, Int32: Int32Array, UInt16: Uint16Array }[type];
  const elements = array && typed ? typed.from(value.map(special)) : bignum(type, array ? value.map(special) : special(value));
  const arrayType = dimensions ? VariantArrayType.Matrix : array ? VariantArrayType.Array : VariantArrayType.Scalar;
  return new Variant({ dataType: DataType[type], arrayType, dimensions, value: elements });
}

// ticks → what node-opcua keeps: milliseconds, and picoseconds beyond them.
function put(name, what, tick) {
  const ticks = tick - EPOCH;
  const status = StatusCodes[what.status || "Good"] || opcua.coerceStatusCode(what.status);
  const dataValue = new DataValue({
    value: toVariant(what),
    statusCode: status,
    sourceTimestamp: new Date(Number(ticks / 10000n)),
    sourcePicoseconds: Number((ticks % 10000n) * 100000n),
    serverTimestamp: new Date(),
    serverPicoseconds: 0,
  });
  variables[name]._internal_set_dataValue(dataValue);
  produced.push([name, String(tick), what.value, status.value, what.type]);
}

function add(name, what) {
  variables[name] = namespace.addVariable({
    organizedBy: folder,
    browseName: name,
    nodeId: `s=${name}`,
    dataType: what.dataType || { ExtensionObject: "Range", Variant: "BaseDataType" }[what.type] || what.type,
    ...(what.access ? { accessLevel: what.access, userAccessLevel: what.userAccess || what.access } : {}),
    valueRank: Array.isArray(what.value) ? (what.dimensions ? what.dimensions.length : 1) : -1,
    arrayDimensions: what.dimensions,
    minimumSamplingInterval: 0,
  });
  if (what.history) server.engine.addressSpace.installHistoricalDataNode(variables[name], { maxOnlineValues: what.history });
  put(name, what, now());
}

const commands = {
  add({ name, ...what }) {
    add(name, what);
  },
  set({ name, tick, ...what }) {
    const at = tick ? BigInt(tick) : now();
    put(name, what, at);
    return { tick: String(at) };
  },
  // `rounds` times, every `every` ms: one new value for each name. Every value and every time is different.
  burst({ names, rounds, every, type }) {
    return new Promise((resolve) => {
      let round = 0;
      const timer = setInterval(() => {
        round += 1;
        names.forEach((name, i) => put(name, { type, value: round + i / 1000, status: "Good" }, now()));
        if (round === rounds) {
          clearInterval(timer);
          resolve({ rounds });
        }
      }, every);
    });
  },
  // The same, at once.
  produce({ names, rounds, type }) {
    for (let round = 1; round <= rounds; round++) names.forEach((name, i) => put(name, { type, value: round + i / 1000, status: "Good" }, now()));
    return { rounds };
  },
  remove({ name }) {
    namespace.deleteNode(variables[name].nodeId);
    delete variables[name];
  },
  // The server forgets to look at a variable, and says nothing of it: what a stale subscription is.
  stall({ name }) {
    let stalled = 0;
    for (const session of Object.values(server.engine._sessions)) {
      for (const subscription of session.publishEngine.subscriptions) {
        for (const item of subscription.monitoredItems.values()) {
          if (item.node && item.node.nodeId.value === name) {
            item.setMonitoringMode(opcua.MonitoringMode.Disabled);
            stalled += 1;
          }
        }
      }
    }
    return { stalled };
  },
  // Ends the session of the subscription `id`, or that subscription.
  async trouble({ id, what }) {
    const sessions = Object.values(server.engine._sessions);
    const session = sessions.find((s) => s.publishEngine.subscriptions.some((one) => one.id === id));
    if (what === "session") server.engine.closeSession(session.authenticationToken, true, "Terminated");
    if (what === "subscription") await session.deleteSubscription(id);
  },
  // What waits in the queues of the subscription `id` is never sent, and its sequence number is used up.
  lose({ id }) {
    const all = Object.values(server.engine._sessions).flatMap((s) => s.publishEngine.subscriptions);
    const subscription = all.find((one) => one.id === id);
    let lost = 0;
    for (const item of subscription.monitoredItems.values()) {
      lost += item.queue.length;
      item.queue.length = 0;
    }
    subscription._sequence_number_generator.next();
    return { lost };
  },
  // Continuation points of history that clients have not used up or given back.
  continuations() {
    return { open: Object.values(server.engine._sessions).reduce((sum, s) => sum + s.continuationPointManager._map.size, 0) };
  },
  // The most nodes that one call of each service has named.
  sizes() {
    return { sizes };
  },
  produced() {
    return { produced };
  },
  // What each live subscription still holds unacknowledged, and how much it has lost.
  subscriptions() {
    const found = [];
    for (const session of Object.values(server.engine._sessions)) {
      for (const s of session.publishEngine.subscriptions) {
        found.push({
          id: s.id,
          items: s.monitoredItemCount,
          unacknowledged: Array.from(s.getAvailableSequenceNumbers()),
          pending: session.publishEngine.pendingPublishRequestCount,
        });
      }
    }
    const orphans = server.engine._orphanPublishEngine ? server.engine._orphanPublishEngine.subscriptions.length : 0;
    return { subscriptions: found, sessions: server.engine.currentSessionCount, orphans };
  },
  // An instance of a companion specification's type: {uri, type, name, in: [uri, number] of the folder, or
  // into: path below an instance,
  // optionals, values: {path: {type, value, unit, low, high}}}. Paths are browse names joined with dots.
  instantiate(what) {
    const space = server.engine.addressSpace;
    const type = space.findObjectType(what.type, space.getNamespaceIndex(what.uri));
    const parent = what.in ? space.findNode(`ns=${space.getNamespaceIndex(what.in[0])};i=${what.in[1]}`) : space.rootFolder.objects;
    const into = what.into ? { componentOf: what.into.split(".").slice(1).reduce((at, name) => at.getChildByName(name), variables[what.into.split(".")[0]]) } : { organizedBy: parent };
    const node = type.instantiate({ browseName: what.name, ...into, optionals: what.optionals || [] });
    variables[what.name] = node;
    for (const [path, value] of Object.entries(what.values || {})) {
      const found = path.split(".").reduce((at, name) => at && at.getChildByName(name), node);
      if (!found) throw new Error(`${what.name} has no ${path}`);
      found.setValueFromSource(toVariant(value));
      if (value.unit) found.engineeringUnits.setValueFromSource({ dataType: "ExtensionObject", value: opcua.standardUnits[value.unit] });
    }
    return { node: node.nodeId.toString() };
  },
  // An object with variables of the standard's own kinds, and what hangs on them.
  analog({ name, parent, low, high, unit, value }) {
    const object = variables[parent] || (variables[parent] = namespace.addObject({ organizedBy: server.engine.addressSpace.rootFolder.objects, browseName: parent, nodeId: `s=${parent}` }));
    variables[`${parent}.${name}`] = namespace.addAnalogDataItem({
      componentOf: object, browseName: name, nodeId: `s=${parent}.${name}`, dataType: "Double", minimumSamplingInterval: 0,
      engineeringUnitsRange: { low, high }, engineeringUnits: opcua.standardUnits[unit],
      value: { dataType: "Double", value },
    });
  },
  // An object that reports events, of which the Server object is told as well; its part `.ram` is where they come from.
  notifier({ name }) {
    const notifier = namespace.addObject({
      organizedBy: server.engine.addressSpace.rootFolder.objects, browseName: name, nodeId: `s=${name}`, eventNotifier: 1,
      notifierOf: server.engine.addressSpace.rootFolder.objects.server,
    });
    variables[name] = namespace.addObject({ componentOf: notifier, browseName: "Ram", nodeId: `s=${name}.ram`, eventSourceOf: notifier });
  },
  // An alarm of `source` on the variable `input`; `kind` is the type's name. It goes off when the input is set.
  alarm({ name, source, input, kind, limits, normal }) {
    const make = { ExclusiveLimitAlarmType: "instantiateExclusiveLimitAlarm", NonExclusiveLimitAlarmType: "instantiateNonExclusiveLimitAlarm" }[kind];
    const what = { browseName: name, nodeId: `s=${name}`, componentOf: variables[source], conditionSource: variables[source], conditionName: name, inputNode: variables[input], optionals: ["ConfirmedState", "Confirm", "ShelvingState"], ...limits };
    variables[name] = make ? namespace[make](kind, what) : namespace.instantiateOffNormalAlarm({ ...what, normalState: variables[normal] });
    return { node: variables[name].nodeId.toString() };
  },
  // How long an alarm with ShelvingState is shelved: "OneShotShelved", "TimedShelved" or "Unshelved".
  shelve({ name, state }) {
    variables[name].shelvingState.setState(state);
    variables[name].suppressedOrShelved.setValueFromSource({ dataType: DataType.Boolean, value: state !== "Unshelved" });
    variables[name].raiseNewCondition({ message: state, severity: 500, quality: StatusCodes.Good, retain: true });
  },
  // A question of `source` to the operator, open until it is answered.
  dialog({ name, source, prompt, open }) {
    variables[name] = variables[name] || namespace.instantiateCondition("DialogConditionType", { browseName: name, nodeId: `s=${name}`, componentOf: variables[source], conditionSource: variables[source], conditionName: name });
    const dialog = variables[name];
    dialog.prompt.setValueFromSource({ dataType: DataType.LocalizedText, value: { text: prompt } });
    dialog.dialogState.id.setValueFromSource({ dataType: DataType.Boolean, value: open });
    dialog.raiseNewCondition({ message: prompt, severity: 300, quality: StatusCodes.Good, retain: open });
  },
  acknowledge({ name, comment, confirm }) {
    const branch = variables[name].currentBranch();
    if (confirm) return variables[name].acknowledgeAndAutoConfirmBranch(branch, opcua.coerceLocalizedText(comment)) || {};
    variables[name]._acknowledge_branch(branch.getEventId(), opcua.coerceLocalizedText(comment), branch, "acknowledged");
  },
  // `count` plain events of `source`, all at once; each message ends in its number.
  raise({ name, type, message, severity, count }) {
    for (let i = 0; i < (count || 1); i++) {
      variables[name].raiseEvent(type || "BaseEventType", {
        message: { dataType: DataType.LocalizedText, value: { text: count ? `${message} ${i}` : message } },
        severity: { dataType: DataType.UInt16, value: severity },
      });
    }
  },
  // The server tells its clients to ask for all conditions.
  refreshRequired() {
    server.engine.addressSpace.rootFolder.objects.server.raiseEvent("RefreshRequiredEventType", {});
  },
  // A variable whose numbers have texts: kind is MultiStateDiscrete, MultiStateValueDiscrete or TwoStateDiscrete.
  discrete({ name, kind, value, ...texts }) {
    const what = { organizedBy: folder, browseName: name, nodeId: `s=${name}`, minimumSamplingInterval: 0, value, ...texts };
    if (kind === "TwoStateDiscrete") variables[name] = namespace.addTwoStateDiscrete(what);
    if (kind === "MultiStateDiscrete") variables[name] = namespace.addMultiStateDiscrete(what);
    if (kind === "MultiStateValueDiscrete") variables[name] = namespace.addMultiStateValueDiscrete({ ...what, dataType: "UInt16" });
  },
  write({ name, ...what }) {
    variables[name].setValueFromSource(toVariant(what));
  },
  // A method of the object `parent`, and its arguments: [[name, type, value rank], …]. It notes its calls in `asked`.
  method({ name, parent, inputs, executable, status }) {
    const object = variables[parent] || (variables[parent] = namespace.addObject({ organizedBy: server.engine.addressSpace.rootFolder.objects, browseName: parent, nodeId: `s=${parent}` }));
    const method = namespace.addMethod(object, {
      browseName: name, nodeId: `s=${parent}.${name}`,
      inputArguments: (inputs || []).map(([name, type, rank]) => ({ name, dataType: DataType[type], valueRank: rank === undefined ? -1 : rank })),
      outputArguments: [{ name: "answer", dataType: DataType.String }],
    });
    if (executable === false) return; // one that is not bound cannot be executed
    method.bindMethod((given, _, done) => {
      asked.calls.push([`${parent}.${name}`, given.map((v) => v.value)]);
      done(null, { statusCode: StatusCodes[status || "Good"], outputArguments: [new Variant({ dataType: DataType.String, value: "heard" })] });
    });
  },
  // What clients wrote and called since the start: [[node, value, type], …].
  asked() {
    return asked;
  },
  freeze({ ms }) {
    const end = Date.now() + ms;
    while (Date.now() < end); // accepts, and never answers
  },
};

async function main() {
  const policies = { none: [opcua.SecurityPolicy.None], secure: [opcua.SecurityPolicy.Basic256Sha256, opcua.SecurityPolicy.Aes256_Sha256_RsaPss, opcua.SecurityPolicy.Aes128_Sha256_RsaOaep] };
  const offered = (options.security || ["none", "secure"]).flatMap((name) => policies[name] || [opcua.SecurityPolicy[name]]);
  const modes = offered.includes(opcua.SecurityPolicy.None) ? [opcua.MessageSecurityMode.None] : [];
  if (offered.some((p) => p !== opcua.SecurityPolicy.None)) modes.push(opcua.MessageSecurityMode.Sign, opcua.MessageSecurityMode.SignAndEncrypt);
  const certificates = new opcua.OPCUACertificateManager({ rootFolder: options.pki, automaticallyAcceptUnknownCertificate: options.accept !== false });
  await certificates.initialize();
  server = new opcua.OPCUAServer({
    port: options.port,
    hostname: "127.0.0.1",
    resourcePath: "/interop",
    serverCertificateManager: certificates,
    userCertificateManager: certificates,
    securityPolicies: offered,
    securityModes: modes,
    allowAnonymous: options.anonymous !== false,
    userManager: { isValidUser: (user, password) => user === "reader" && password === "secret" },
    serverInfo: { applicationUri: "urn:fieldlab:interop:server" },
    serverCapabilities: {
      maxSessions: 200, // a stopped source leaves its session to the next one
      minSupportedSampleRate: options.sampleRate || 0, // 0: every change is a sample; node-opcua's default joins 50 ms
      operationLimits: { maxMonitoredItemsPerCall: options.itemsPerCall || 500, maxNodesPerRead: options.readLimit || 2000, ...(options.historyNodes ? { maxNodesPerHistoryReadData: options.historyNodes } : {}), ...(options.browseLimit ? { maxNodesPerBrowse: options.browseLimit } : {}), ...options.limits },
    },
    alternateHostname: "127.0.0.1",
    ...(options.nodesets ? { nodeset_filename: ["standard", ...options.nodesets].map((name) => opcua.nodesets[name]) } : {}),
  });
  await server.initialize();
  if (options.historyValues) server.engine.historyServerCapabilities.maxReturnDataValues = options.historyValues;
  const addressSpace = server.engine.addressSpace;
  if (options.alarms !== false) addressSpace.installAlarmsAndConditionsService(); // else it knows no ConditionRefresh
  const others = Array.from({ length: options.noise || 0 }, (_, i) => `urn:fieldlab:noise:${i}`);
  if (options.swap) others.forEach((uri) => addressSpace.registerNamespace(uri));
  namespace = addressSpace.registerNamespace(URI);
  if (!options.swap) others.forEach((uri) => addressSpace.registerNamespace(uri));
  folder = namespace.addFolder(addressSpace.rootFolder.objects, { browseName: "Machine" });
  for (const [name, what] of Object.entries(options.variables || {})) add(name, what);
  for (const what of options.instances || []) commands.instantiate(what);
  if (options.publishLimit) server.on("create_session", (session) => (session.publishEngine.maxPublishRequestInQueue = options.publishLimit));
  server.on("request", (request) => {
    if (request.constructor.name !== "WriteRequest") return;
    for (const { nodeId, value } of request.nodesToWrite) asked.writes.push([String(nodeId.value), value.value.value, DataType[value.value.dataType]]);
  });
  const requests = ["Register", "Read", "TranslateBrowsePathsToNodeIds", "CreateMonitoredItems", "Browse"];
  for (const name of requests) {
    const handler = `_on_${name === "Register" ? "RegisterNodes" : name}Request`;
    const plain = server[handler];
    server[handler] = function (message, channel) {
      const request = message.request;
      const nodes = request.nodesToRegister || request.nodesToRead || request.browsePaths || request.itemsToCreate || request.nodesToBrowse || [];
      sizes[name] = Math.max(sizes[name] || 0, nodes.length);
      if (name === "Register" && options.refuseRegister) {
        return channel.send_response("MSG", new opcua.ServiceFault({ responseHeader: { requestHandle: request.requestHeader.requestHandle, serviceResult: StatusCodes.BadServiceUnsupported } }), message);
      }
      return plain.call(this, message, channel);
    };
  }
  await server.start();
  console.log(JSON.stringify({ ready: true, uri: URI, namespaces: addressSpace.getNamespaceArray().map((n) => n.namespaceUri) }));
  let text = "";
  process.stdin.on("data", async (chunk) => {
    text += chunk;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
      const { command, ...rest } = JSON.parse(text.slice(0, end));
      text = text.slice(end + 1);
      let answer;
      try {
        answer = (await commands[command](rest)) || {};
      } catch (error) {
        answer = { error: String(error.stack || error) };
      }
      console.log(JSON.stringify(answer));
    }
  });
  process.stdin.on("end", () => process.exit(0));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
