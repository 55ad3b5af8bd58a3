// node-opcua's own client: one subscription, one monitored item group, a callback a value. Prints JSON.
//
//   node client.js URL N SECONDS INTERVAL_MS
"use strict";
const { OPCUAClient, ClientSubscription, ClientMonitoredItemGroup, AttributeIds, TimestampsToReturn } = require("node-opcua");

const url = process.argv[2];
const [count, seconds, interval] = process.argv.slice(3).map(Number);
const pause = (s) => new Promise((resolve) => setTimeout(resolve, s * 1000));
const cpu = () => { const used = process.cpuUsage(); return (used.user + used.system) / 1e6; };

(async () => {
    const client = OPCUAClient.create({ endpointMustExist: false });
    await client.connect(url);
    const session = await client.createSession();
    const array = (await session.read({ nodeId: "i=2255", attributeId: AttributeIds.Value })).value.value;
    const index = array.indexOf("urn:fieldlab:benchmark");
    const subscription = ClientSubscription.create(session, {
        requestedPublishingInterval: interval, requestedMaxKeepAliveCount: 20, requestedLifetimeCount: 600,
        maxNotificationsPerPublish: 10000, publishingEnabled: true, priority: 1,
    });
    let values = 0, sum = 0;
    const before = cpu();
    const group = ClientMonitoredItemGroup.create(
        subscription,
        Array.from({ length: count }, (_, i) => ({ nodeId: `ns=${index};s=v${i}`, attributeId: AttributeIds.Value })),
        { samplingInterval: 0, discardOldest: true, queueSize: 20 }, TimestampsToReturn.Both);
    group.on("changed", (_, dataValue) => { values++; if (typeof dataValue.value.value === "number") sum += dataValue.value.value; });
    while (!values) await pause(0.1);
    await pause(5); // as long as the others: V8 compiles meanwhile
    const subscribed = cpu() - before;
    const start = [values, cpu(), process.hrtime.bigint()];
    await pause(seconds);
    const used = cpu() - start[1];
    console.log(JSON.stringify({ values: values - start[0], cpu_s: used, seconds: Number(process.hrtime.bigint() - start[2]) / 1e9, first_3_s: subscribed, sum }));
    await session.close(true);
    await client.disconnect();
    process.exit(0);
})();
