"""The cameras of the quickstart data: viewpoint, background and image quality of each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Camera:
    """One surveillance camera; angles in degrees.

    Attributes:
        yaw, yaw_spread: mean and standard deviation of the direction from which people are seen; 0
            is from the front.
        turned: share of people who walk in the opposite direction.
        tilt, roll: downward tilt, and rotation around the optical axis.
        scene: the background, see scenes.py.
        gain: color cast, RGB.
        gamma, haze, saturation: tone of the image.
        light: direction to the light.
        ambient: share of the light that comes from all directions.
        sharpness: range of the effective resolution, as a share of the full resolution.
        blur: largest blur radius in pixels of the final image.
        noise: standard deviation of the sensor noise.
        occlusion: share of people who are partly occluded.
        quality: range of the JPEG quality.
    """

    yaw: float
    yaw_spread: float
    turned: float
    tilt: float
    roll: float
    scene: str
    gain: tuple[float, float, float]
    gamma: float
    haze: float
    saturation: float
    light: tuple[float, float, float]
    ambient: float
    sharpness: tuple[float, float]
    blur: float
    noise: float
    occlusion: float
    quality: tuple[int, int]


# Cameras of one place.
NUM_CAMERAS = 6

# The six cameras of the first place, then the six of the second: it is evening, the light is
# colored, and the cameras hang higher and have a lower quality.
CAMERAS: tuple[Camera, ...] = (
    Camera(
        yaw=10, yaw_spread=22, turned=0.2, tilt=10, roll=0, scene="plaza",
        gain=(1.08, 1.01, 0.92), gamma=0.94, haze=0.02, saturation=0.95,
        light=(0.5, 0.5, 0.7), ambient=0.45, sharpness=(0.85, 1.0), blur=0.3,
        noise=0.008, occlusion=0.10, quality=(70, 92),
    ),
    Camera(
        yaw=185, yaw_spread=25, turned=0.25, tilt=6, roll=1, scene="park",
        gain=(0.96, 1.03, 0.94), gamma=1.02, haze=0.06, saturation=0.85,
        light=(-0.2, 0.6, 0.75), ambient=0.6, sharpness=(0.7, 0.95), blur=0.6,
        noise=0.010, occlusion=0.15, quality=(55, 85),
    ),
    Camera(
        yaw=88, yaw_spread=20, turned=0.4, tilt=15, roll=0, scene="hall",
        gain=(1.06, 1.00, 0.88), gamma=1.08, haze=0.00, saturation=0.9,
        light=(0.1, 0.8, 0.6), ambient=0.45, sharpness=(0.7, 0.95), blur=0.4,
        noise=0.020, occlusion=0.08, quality=(60, 88),
    ),
    Camera(
        yaw=-38, yaw_spread=22, turned=0.3, tilt=25, roll=-2, scene="street",
        gain=(0.97, 0.99, 1.05), gamma=0.90, haze=0.08, saturation=0.8,
        light=(-0.7, 0.5, 0.5), ambient=0.42, sharpness=(0.58, 0.85), blur=0.3,
        noise=0.010, occlusion=0.15, quality=(60, 88),
    ),
    Camera(
        yaw=145, yaw_spread=25, turned=0.25, tilt=12, roll=2, scene="bricks",
        gain=(0.88, 0.94, 1.06), gamma=1.12, haze=0.03, saturation=0.85,
        light=(0.6, 0.3, 0.6), ambient=0.5, sharpness=(0.65, 0.92), blur=0.6,
        noise=0.018, occlusion=0.12, quality=(50, 80),
    ),
    Camera(
        yaw=262, yaw_spread=22, turned=0.4, tilt=18, roll=0, scene="platform",
        gain=(0.94, 1.03, 1.02), gamma=1.00, haze=0.04, saturation=0.82,
        light=(0.0, 0.8, 0.65), ambient=0.5, sharpness=(0.62, 0.9), blur=0.5,
        noise=0.014, occlusion=0.18, quality=(40, 70),
    ),
    Camera(
        yaw=-15, yaw_spread=25, turned=0.3, tilt=22, roll=2, scene="street",
        gain=(1.18, 0.98, 0.80), gamma=1.18, haze=0.02, saturation=0.72,
        light=(0.7, 0.6, 0.4), ambient=0.42, sharpness=(0.6, 0.88), blur=0.6,
        noise=0.022, occlusion=0.12, quality=(45, 75),
    ),
    Camera(
        yaw=165, yaw_spread=25, turned=0.3, tilt=24, roll=-3, scene="platform",
        gain=(0.84, 0.98, 1.15), gamma=1.12, haze=0.09, saturation=0.70,
        light=(-0.6, 0.7, 0.4), ambient=0.5, sharpness=(0.6, 0.85), blur=0.6,
        noise=0.020, occlusion=0.15, quality=(45, 70),
    ),
    Camera(
        yaw=70, yaw_spread=25, turned=0.4, tilt=20, roll=1, scene="bricks",
        gain=(0.90, 1.08, 0.92), gamma=1.20, haze=0.04, saturation=0.75,
        light=(0.2, 0.9, 0.3), ambient=0.45, sharpness=(0.6, 0.88), blur=0.5,
        noise=0.024, occlusion=0.10, quality=(50, 75),
    ),
    Camera(
        yaw=-60, yaw_spread=22, turned=0.3, tilt=26, roll=-1, scene="hall",
        gain=(1.12, 1.02, 0.85), gamma=0.86, haze=0.12, saturation=0.68,
        light=(-0.3, 0.8, 0.5), ambient=0.55, sharpness=(0.6, 0.85), blur=0.5,
        noise=0.018, occlusion=0.12, quality=(40, 70),
    ),
    Camera(
        yaw=120, yaw_spread=25, turned=0.25, tilt=23, roll=3, scene="plaza",
        gain=(0.86, 0.92, 1.16), gamma=1.22, haze=0.03, saturation=0.76,
        light=(0.5, 0.5, 0.6), ambient=0.42, sharpness=(0.62, 0.9), blur=0.5,
        noise=0.024, occlusion=0.10, quality=(45, 70),
    ),
    Camera(
        yaw=240, yaw_spread=22, turned=0.4, tilt=21, roll=0, scene="park",
        gain=(1.06, 0.90, 1.03), gamma=0.90, haze=0.10, saturation=0.70,
        light=(0.0, 0.9, 0.4), ambient=0.5, sharpness=(0.6, 0.88), blur=0.6,
        noise=0.020, occlusion=0.15, quality=(40, 65),
    ),
)  # fmt: skip
