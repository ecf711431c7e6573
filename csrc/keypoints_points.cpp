#include "keypoints_points.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace gpupipe {
namespace {

// The exponential is double's, rounded: float's own differs between C libraries.
float sigmoid(float value) { return 1.0f / (1.0f + static_cast<float>(std::exp(-static_cast<double>(value)))); }

struct Box {
    float low_x, low_y, width, height;
    float score;
    int64_t place;

    float high_x() const { return low_x + width; }
    float high_y() const { return low_y + height; }
    float area() const { return (high_x() - low_x) * (high_y() - low_y); }
};

bool overlaps(const Box& box, const Box& best, float least) {
    const float across = std::min(box.high_x(), best.high_x()) - std::max(box.low_x, best.low_x);
    const float down = std::min(box.high_y(), best.high_y()) - std::max(box.low_y, best.low_y);
    const float common = std::max(across, 0.0f) * std::max(down, 0.0f);
    const float both = box.area() + best.area() - common;
    return both > 0 && common / both > least;
}

std::vector<Box> likely_boxes(const Detections& all) {
    std::vector<Box> boxes;
    for (int64_t place = 0; place < all.count; ++place) {
        const float score = sigmoid(std::clamp(all.scores[place], -all.score_bound, all.score_bound));
        if (!(score >= all.confidence)) continue;
        const float* raw = all.boxes + place * all.columns;
        const float* anchor = all.anchors + 2 * place;
        const float x = raw[0] / all.size + anchor[0], half_width = raw[2] / all.size / 2;
        const float y = raw[1] / all.size + anchor[1], half_height = raw[3] / all.size / 2;
        const float width = (x + half_width) - (x - half_width), height = (y + half_height) - (y - half_height);
        if (width >= 0 && height >= 0) boxes.push_back({x - half_width, y - half_height, width, height, score, place});
    }
    return boxes;
}

}  // namespace

bool best_detection(const Detections& all, float* keypoints) {
    std::vector<Box> boxes = likely_boxes(all);
    if (boxes.empty()) return false;
    std::stable_sort(boxes.begin(), boxes.end(), [](const Box& a, const Box& b) { return a.score > b.score; });
    const Box best = boxes.front();
    boxes.erase(std::remove_if(boxes.begin(), boxes.end(),
                               [&](const Box& box) { return !overlaps(box, best, all.overlap); }),
                boxes.end());
    if (boxes.empty()) boxes.push_back(best);  // a box without area
    const int64_t count = all.columns - 4;
    std::fill(keypoints, keypoints + count, 0.0f);
    float total = 0;
    for (const Box& box : boxes) {
        const float* raw = all.boxes + box.place * all.columns + 4;
        const float* anchor = all.anchors + 2 * box.place;
        for (int64_t i = 0; i < count; ++i) keypoints[i] += (raw[i] / all.size + anchor[i % 2]) * box.score;
        total += box.score;
    }
    for (int64_t i = 0; i < count; ++i) keypoints[i] /= total;
    return true;
}

void refine_points(const Heatmap& map, float* points) {
    const float width = static_cast<float>(map.width), height = static_cast<float>(map.height);
    for (int64_t place = 0; place < map.points; ++place, points += 3) {
        const float at_x = points[0] * width, at_y = points[1] * height;
        if (!(at_x > -1 && at_x < width && at_y > -1 && at_y < height)) continue;
        const int64_t column = static_cast<int64_t>(at_x), row = static_cast<int64_t>(at_y), reach = map.kernel / 2;
        const int64_t left = std::max<int64_t>(0, column - reach), right = std::min(map.width, column + reach + 1);
        const int64_t top = std::max<int64_t>(0, row - reach), bottom = std::min(map.height, row + reach + 1);
        float total = 0, across = 0, down = 0, most = 0;
        for (int64_t y = top; y < bottom; ++y) {
            for (int64_t x = left; x < right; ++x) {
                const float likely = sigmoid(map.logits[(y * map.width + x) * map.points + place]);
                total += likely;
                most = std::max(most, likely);
                across += likely * static_cast<float>(x);
                down += likely * static_cast<float>(y);
            }
        }
        if (most >= map.confidence) {
            points[0] = across / width / total;
            points[1] = down / height / total;
        }
    }
}

}  // namespace gpupipe
